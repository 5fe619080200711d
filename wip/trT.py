"""The course's networks at the course's own scale (D = 64, 20 epochs of 60,000): python trT.py TIME|CLASS|FLOW_TIME|FLOW_CLASS MINUTES [threads].
nb.train as it stands, weights in channels_last (1.5 times as fast). State in /opt/w/course/training, resumable; result /opt/w/course/NAME.safetensors."""
import sys,os,torch; sys.path.insert(0,'/work/main'); torch.set_num_threads(int(sys.argv[3]) if len(sys.argv)>3 else 2)
from helpers import load_notebook
nb=load_notebook()
first=nb.Run.__init__
def init(self,*a,**k):
    first(self,*a,**k); self.model.to(memory_format=torch.channels_last)
nb.Run.__init__=init
os.makedirs('/opt/w/course',exist_ok=True)
m=nb.train(getattr(nb,sys.argv[1]),'/opt/w/course',save_every=120,max_seconds=60*float(sys.argv[2]))
print(m.info['step'],m.info['losses'][-20:],m.info['seconds'])
