"""python toy.py A|B|C minutes threads: does a stride of 8 in the place of 16 learn things at places on a grid of 8 faster?"""
import sys,time,torch,numpy as np; sys.path.insert(0,'/work/main'); torch.set_num_threads(1)
from helpers import load_notebook
from torch import nn; import torch.nn.functional as F
nb=load_notebook(); kind,minutes=sys.argv[1],float(sys.argv[2])
data=nb.drawings(); S=torch.stack([data.sprite(t,1,32) for t in data.train])  # [100,4,32,32]
grid=16 if kind=='C' else 8
torch.manual_seed(0)
net=nb.UNet(size=64,fold=2,widths=(24,48,128,128),attention=(2,3),classes=100,embedding=128)
if kind=='B':
    d=net.downsample[2]; net.downsample[2]=nn.Conv2d(d.in_channels,d.out_channels,3,padding=1)
    def fwd(net,x,t,condition):
        vector,h=nb.unet_inputs(net,x,t,condition); skips=[]
        for l,stage in enumerate(net.down):
            h=stage(net.downsample[l-1](h) if l else h,vector,condition.text); skips.append(h)
        h=net.middle(h,vector,condition.text)
        for l,stage in reversed(list(enumerate(net.up))):
            h=stage(torch.cat([h,skips.pop()],1),vector,condition.text)
            if l==3: h=net.upsample[2](h)
            elif l: h=net.upsample[l-1](F.interpolate(h,scale_factor=2.0))
        return F.pixel_shuffle(net.out(h),net.fold)
    import types; nb.UNet.forward=fwd
model=nb.Denoiser(net,nb.Schedule('cosine',1000,2.0),'x_0')
def batch(n,rng):
    t=torch.from_numpy(rng.integers(100,size=n)); x=torch.ones(n,3,64,64)
    k=32//grid+1
    for i in range(n):
        a,b=grid*rng.integers(k),grid*rng.integers(k); s=S[t[i]]; v=x[i,:,a:a+32,b:b+32]; v.copy_(s[3:]*s[:3]+(1-s[3:])*v)
    return nb.to_model_range(x),t
val,vt=batch(256,np.random.default_rng(999))
inner=[p for n,p in model.named_parameters() if p.ndim in (2,4) and min(p.flatten(1).shape)>=16 and 'init' not in n and '.out.2' not in n]
ids={id(p) for p in inner}
opts=[torch.optim.Adam([p for p in model.parameters() if id(p) not in ids],lr=2e-3),nb.Muon(inner)]
ema=nb.EMA(model,0.995)
begun=time.time(); step=0; spoken=0
while time.time()-begun<60*minutes:
    f=(time.time()-begun)/60/minutes; lr=2e-3*min(1,(step+1)/50)*min(1,2*(1-f))
    for o in opts:
        for g in o.param_groups: g['lr']=lr
    x,t=batch(32,np.random.default_rng([1,step])); g=torch.Generator().manual_seed(step)
    with torch.autocast('cpu',torch.bfloat16): loss=model.loss(x,nb.Condition(label=t),drop=0.1,max_weight=5.0,generator=g)
    model.zero_grad(); loss.backward(); nn.utils.clip_grad_norm_(model.parameters(),1.0)
    for o in opts: o.step()
    ema.update(model,step); step+=1
    if time.time()-begun>spoken+60 or time.time()-begun>=60*minutes:
        spoken+=60
        saved={k:v.clone() for k,v in model.state_dict().items()}; model.load_state_dict(ema.state); row=[]
        with torch.no_grad():
            for tt in (250,450,600,750,900,1000):
                z=torch.randn(val.shape,generator=torch.Generator().manual_seed(tt))
                with torch.autocast('cpu',torch.bfloat16): e=torch.cat([model(model.schedule.q_sample(val[i:i+64],tt,z[i:i+64]),tt,nb.Condition(label=vt[i:i+64])) for i in range(0,256,64)])
                row.append(1000*(e.float()-val).square().mean().item())
        model.load_state_dict(saved)
        print(kind,f'{(time.time()-begun)/60:.1f} min',step,'steps',' '.join(f'{v:.1f}' for v in row),flush=True)
