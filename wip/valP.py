"""like val.py for states of trP.py"""
import sys,torch,numpy as np
sys.path[:0]=['/opt/w/train']; torch.set_num_threads(1)
from helpers import load_notebook
nb=load_notebook()
from models import scenes
olds=nb.Stage.forward
def sf(self,x,v,t):
    x=olds(self,x,v,t)
    for more in getattr(self,'extra',[]): x=more(x,v,t)
    return x
nb.Stage.forward=sf
rng=np.random.default_rng(5)
a,ca=scenes.thing_batch(range(40000,40128),rng); b,cb,_=scenes.scene_batch(range(40000,40128),rng,(0.,1.,0.))
for f in sys.argv[1:]:
    s=torch.load(f,map_location='cpu') if f.endswith('.pt') else (lambda m: dict(info=m.info,ema=m.state_dict(),step=0))(nb.load_model(f,'cpu')); m=nb.build_model(s['info']); w=s['info']['config']['widths']; at=s['info']['config']['attention']
    for L in range(len(w)):
        n=len({k.split('.')[4] for k in s['ema'] if f'net.down.{L}.extra.' in k})
        for side in (m.net.down,m.net.up): side[L].extra=torch.nn.ModuleList(nb.Stage(w[L],w[L],256,L in at,384*(L in at)) for _ in range(n))
    m.load_state_dict(s['ema']); m.eval(); row=[]
    with torch.no_grad():
        for p,c in ((a,ca),(b,cb)):
            x=nb.to_model_range(p)
            for t in (250,450,600,750,900,1000):
                z=torch.randn(x.shape,generator=torch.Generator().manual_seed(t))
                e=torch.cat([m(m.schedule.q_sample(x[i:i+32],t,z[i:i+32]),t,nb.Condition(prompt=list(c[i:i+32]))) for i in range(0,128,32)])
                row.append((e-x).square().mean().item())
    print(f,s['step'],' '.join(f'{1000*v:.1f}' for v in row),flush=True)
