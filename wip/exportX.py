"""painterX.pt -> a file with its description: python exportX.py [out]"""
import sys,torch
sys.path.insert(0,'/opt/w/swap'); torch.set_num_threads(1)
from helpers import load_notebook
nb=load_notebook()
s=torch.load('/opt/w/painterX.pt'); w=nb.load_model('/opt/w/swap/wip/painter_w4.safetensors','cpu')
m=nb.build_model(nb.PAINTER.info); m.load_state_dict(s['ema']); m.eval()
losses=[*map(float,w.info['losses']),*s['losses']]; steps=w.info['step']+s['step']
assert len(losses)==steps,(len(losses),steps)
m.info={**nb.PAINTER.info,'settings':nb.PAINTER.settings,'step':steps,'seconds':round(w.info['seconds']+s['seconds']),'machine':'x86_64, cpu',
 'fresh optimiser at':[w.info['step']],'history':'its three inner levels began as those of a network on blocks of 4 x 4 pixels, after 372,000 pictures; the rate was 5e-4 for 1,600 steps, then 8e-4; things stood at any pixel for 4,900 steps, then at multiples of four',
 'losses':losses,'samples':{}}
out=sys.argv[1] if len(sys.argv)>1 else '/opt/w/swap/models/painter.safetensors'
nb.save_model(m,out,torch.int8)
k=nb.load_model(out); print(nb.describe(k))
