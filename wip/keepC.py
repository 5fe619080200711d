"""python keepC.py time|class: samples of the kept weights, and models/digits_*.safetensors"""
import sys,torch; sys.path.insert(0,'/work/main'); torch.set_num_threads(int(sys.argv[2]))
from helpers import load_notebook
from dataclasses import replace
nb=load_notebook(); k=sys.argv[1]
base={'time':nb.TIME,'class':nb.CLASS}[k]
s=torch.load(f'/opt/w/course_{k}.pt'); run,kept=s['run'],s['kept']
print(run['step'],sorted(kept))
samples={}
for e,w in sorted(kept.items()):
    m=nb.build_model(base.info); m.load_state_dict({n:v.float() if v.is_floating_point() else v for n,v in w.items()}); m=nb.place(m,'cpu').eval()
    samples[e]=nb.kept_digits(m); print(e,samples[e].shape,flush=True)
m=nb.build_model(base.info); m.load_state_dict(run['ema']); m.eval()
settings={**base.settings,'pictures':5120}
m.info={**base.info,'settings':settings,'step':run['step'],'seconds':round(run['seconds']),'machine':'x86_64, cpu','fresh optimiser at':[],'losses':run['losses'],'samples':samples,
 'history':"each epoch draws its 5,120 pictures anew from all 60,000; the course's epoch is all of them"}
nb.save_model(m,f'/opt/w/digits_{k}.safetensors')
print(nb.describe(nb.load_model(f'/opt/w/digits_{k}.safetensors','cpu')))
