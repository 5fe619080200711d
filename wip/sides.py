import sys,torch,numpy as np
sys.path[:0]=['/opt/w/swap']; torch.set_num_threads(2)
from helpers import load_notebook
nb=load_notebook()
from models import scenes
from dataclasses import replace
s=torch.load(sys.argv[1],map_location='cpu'); m=nb.build_model(s['info']); m.load_state_dict(s['ema']); m.eval()
rng=np.random.default_rng(5); told=[]
for n in range(40000,40096):
    a=replace(scenes.captioned(n,(1.,0.,0.))[0],sizes=(None,),place=None); told.append((scenes.complete(a,rng),scenes.caption(a,np.random.default_rng([8,n]))))
for side in (64,56,48,40,28):
  for off in (0,2):
    p=[]
    for sc,_ in told:
        x=(64-side)//2//4*4+ (off if side<64 else 0)
        p.append(scenes.paint(replace(sc,boxes=((*sc.boxes[0][:2],x,x,side),))))
    x=nb.to_model_range(torch.stack(p)); c=[w for _,w in told]; row=[]
    with torch.no_grad():
        for t in (250,450,600,750,900):
            z=torch.randn(x.shape,generator=torch.Generator().manual_seed(t))
            e=m(m.schedule.q_sample(x,t,z),t,nb.Condition(prompt=c)); row.append((e-x).square().mean().item()*(64/side)**2)
    print(side,off,'error per area of the thing',' '.join(f'{1000*v:.1f}' for v in row),flush=True)
