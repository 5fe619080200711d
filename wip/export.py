"""painter.pt -> models/painter.safetensors with its description"""
import sys,torch,json
sys.path.insert(0,'/opt/w/swap'); torch.set_num_threads(1)
from helpers import load_notebook
nb=load_notebook()
s=torch.load('/opt/w/painter.pt'); g=torch.load('/opt/w/pG.pt')
m=nb.build_model(nb.PAINTER.info); m.load_state_dict(s['ema']); m.eval()
steps=s['step']+g['step']//2
losses=[*g['losses'][1::2],*s['losses']]
m.info={**nb.PAINTER.info,'settings':nb.PAINTER.settings,'step':steps,'seconds':round(s['seconds']+g['seconds']),'machine':'x86_64, cpu','fresh optimiser at':[g['step']//2],'losses':losses[-steps:],'samples':{}}
print(len(losses),steps)
nb.save_model(m,'/opt/w/swap/models/painter.safetensors',torch.int8)
k=nb.load_model('/opt/w/swap/models/painter.safetensors'); print(nb.describe(k)); 
