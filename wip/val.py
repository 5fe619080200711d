"""python val.py file...: error of the estimate by t on 128 things and 128 scenes, fresh numbers"""
import sys,torch,numpy as np
sys.path[:0]=['/opt/w/swap']; torch.set_num_threads(1)
from helpers import load_notebook
nb=load_notebook()
from models import scenes
rng=np.random.default_rng(5)
a,ca=scenes.thing_batch(range(40000,40128),rng); b,cb,_=scenes.scene_batch(range(40000,40128),rng)
for f in sys.argv[1:]:
    if f.endswith('.pt'):
        s=torch.load(f,map_location='cpu'); m=nb.build_model(s['info']); m.load_state_dict(s['ema']); m.eval(); n=s['step']
    else: m=nb.load_model(f,'cpu'); n=m.info['step']
    row=[]
    with torch.no_grad():
        for p,c in ((a,ca),(b,cb)):
            x=nb.to_model_range(p)
            for t in (250,450,600,750,900,1000):
                z=torch.randn(x.shape,generator=torch.Generator().manual_seed(t))
                e=torch.cat([m(m.schedule.q_sample(x[i:i+32],t,z[i:i+32]),t,nb.Condition(prompt=list(c[i:i+32]))) for i in range(0,128,32)])
                row.append((e-x).square().mean().item())
    print(f,n,' '.join(f'{1000*v:.1f}' for v in row),flush=True)
