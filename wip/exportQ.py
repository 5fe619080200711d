"""painter.pt -> models/painter.safetensors with its description"""
import sys,torch,json
sys.path.insert(0,'/opt/w/swap'); torch.set_num_threads(1)
from helpers import load_notebook
nb=load_notebook()
s=torch.load('/opt/w/painterQ.pt'); g=torch.load('/opt/w/pG.pt')
m=nb.build_model(s['info']); m.load_state_dict(s['ema']); m.eval()
steps=s['step']+4310
losses=[*g['losses'][1::2],*torch.load('/opt/w/painter_s4.pt')['losses'],*s['losses']]
m.info={**s['info'],'settings':nb.PAINTER.settings,'step':steps,'seconds':round(s['seconds']+g['seconds']+torch.load('/opt/w/painter_s4.pt')['seconds']),'machine':'x86_64, cpu','fresh optimiser at':[310,4310],'losses':losses[-steps:],'samples':{}}
print(len(losses),steps)
nb.save_model(m,'/opt/w/painterQ.safetensors',torch.int8)
k=nb.load_model('/opt/w/painterQ.safetensors'); print(nb.describe(k)); 
