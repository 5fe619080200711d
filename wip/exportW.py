import sys,torch
sys.path.insert(0,'/opt/w/swap'); torch.set_num_threads(1)
from helpers import load_notebook
nb=load_notebook()
s=torch.load('/opt/w/painterW.pt')
m=nb.build_model(s['info']); m.load_state_dict(s['ema']); m.eval()
m.info={**s['info'],'settings':nb.PAINTER.settings,'step':s['step'],'seconds':round(s['seconds']),'machine':'x86_64, cpu','fresh optimiser at':[],'losses':s['losses'],'samples':{}}
nb.save_model(m,'/opt/w/painterW.safetensors',torch.int8); print(s['step'])
