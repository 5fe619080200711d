"""python trC.py time|class: the course's networks at D = 64, 20 epochs of 5,888 pictures each, drawn from all 60,000"""
import sys,os,time,copy,torch; sys.path.insert(0,'/opt/w/train'); torch.set_num_threads(1)
from helpers import load_notebook
from dataclasses import fields
nb=load_notebook()
base={'time':nb.TIME,'class':nb.CLASS}[sys.argv[1]]
class Short(nb.Recipe):
    @property
    def epoch_steps(self): return 40
r=Short(**{f.name:getattr(base,f.name) for f in fields(base)})
run=nb.Run(r); path=f'/opt/w/course_{sys.argv[1]}.pt'
if os.path.exists(path):
    s=torch.load(path); run.load_state_dict(s['run']); kept=s['kept']; print('resumed',run.step)
else: kept={}
raw=run.model.net.forward
run.model.net.forward=torch.compile(raw)
t=saved=time.time(); first=run.step
for step in nb.training_steps(run):
    e,rest=divmod(step,40)
    if not rest and e in r.keep_at: kept[e]={k:v.half() for k,v in run.ema.state.items()}
    if time.time()-saved>120 or step==run.total:
        torch.save({'run':run.state_dict(),'kept':kept},path+'.tmp'); os.replace(path+'.tmp',path); saved=time.time()
    if step%20==0: print(step,sum(run.losses[-20:])/20,f'{(step-first)*128/(time.time()-t):.1f}/s',flush=True)
print('done')
