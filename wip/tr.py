"""python tr.py NAME rank world minutes [--config fold4|w4] ; gloo averaging of gradients; compiled fp32."""
import sys,time,os,json,torch,numpy as np,torch.distributed as dist,torch.nn.functional as F
sys.path.insert(0,'/opt/w/train'); torch.set_num_threads(1)
from helpers import load_notebook
from models import scenes
from dataclasses import replace
nb=load_notebook()
name,rank,world,minutes,cfg=sys.argv[1],int(sys.argv[2]),int(sys.argv[3]),float(sys.argv[4]),json.loads(sys.argv[5])
if world>1:
    os.environ.setdefault('MASTER_ADDR','127.0.0.1'); os.environ.setdefault('MASTER_PORT',str(cfg.get('port',29511)))
    dist.init_process_group('gloo',rank=rank,world_size=world)
B=cfg.get('batch',32); LR=cfg.get('lr',8e-4); share=cfg.get('things',0.5); holes=cfg.get('holes',0.3); total=cfg['total']; ema_decay=cfg.get('ema',0.999)
netcfg={"text_width":384,"inpaint":True,**cfg['net']}
info={"net":"UNet","config":netcfg,"schedule":["cosine",1000,cfg.get("snr",2.0)],"target":"x_0","reader":{"net":"Reader","tokens":2.5,"pooled":4.0}}
if cfg.get('ff'):
    from torch import nn
    old=nb.Stage.__init__
    def init(self,ci,co,e,l,tw):
        old(self,ci,co,e,l,tw)
        if tw:
            self.memory=nn.Sequential(nn.GroupNorm(8,co),nn.Conv2d(co,cfg['ff']*co,1),nn.GELU(),nn.Conv2d(cfg['ff']*co,co,1))
            nn.init.zeros_(self.memory[3].weight); nn.init.zeros_(self.memory[3].bias)
    oldf=nb.Stage.forward
    def fwd(self,x,v,t):
        x=oldf(self,x,v,t)
        return x+self.memory(x) if hasattr(self,'memory') else x
    nb.Stage.__init__=init; nb.Stage.forward=fwd
torch.manual_seed(0)
model=nb.build_model(info)
KNOWN={}
for f in ('scenes','things'): KNOWN.update(torch.load(f'/opt/w/encoded_{f}.pt'))
L=36
class Enc:
    def __call__(s,prompts):
        tk=torch.zeros(len(prompts),L,384); ln=torch.zeros(len(prompts),dtype=torch.long)
        for i,p in enumerate(prompts):
            k=KNOWN[p].float()[:L]; tk[i,:len(k)]=k; ln[i]=len(k)
        return nb.Text(tk,torch.arange(L)<ln[:,None],tk.sum(1)/ln[:,None])
if '' not in KNOWN:
    KNOWN['']=nb.TextEncoder()([''] ).tokens[0].half()
model.reader.encoder=Enc()
path=f'/opt/w/{name}.pt'
step=0
class Muon(torch.optim.Optimizer):
    def __init__(self,params,lr,momentum=0.95): super().__init__(params,dict(lr=lr,momentum=momentum))
    @torch.no_grad()
    def step(self):
        for g in self.param_groups:
            for p in g['params']:
                st=self.state[p]; buf=st.setdefault('m',torch.zeros_like(p)); buf.lerp_(p.grad,1-g['momentum'])
                u=p.grad.lerp(buf,g['momentum']).flatten(1); tr=u.shape[0]>u.shape[1]
                u=u.T if tr else u; u=u/(u.norm()+1e-7)
                for _ in range(5):
                    a=u@u.T; b=-4.7750*a+2.0315*(a@a); u=3.4445*u+b@u
                u=(u.T if tr else u).float().reshape(p.shape)
                p.add_(u,alpha=-g['lr']*0.2*max(p.flatten(1).shape)**.5)
if cfg.get('muon'):
    big=[p for n,p in model.named_parameters() if p.ndim in (2,4) and min(p.flatten(1).shape)>=16 and 'init' not in n and '.out.2' not in n]
    ids={id(p) for p in big}
    class Two:
        def __init__(s):
            s.a=torch.optim.Adam([p for p in model.parameters() if id(p) not in ids],lr=LR,fused=True); s.b=Muon(big,LR)
        @property
        def param_groups(s): return s.a.param_groups+s.b.param_groups
        def zero_grad(s): s.a.zero_grad(); s.b.zero_grad()
        def step(s): s.a.step(); s.b.step()
        def state_dict(s): return {'a':s.a.state_dict(),'b':s.b.state_dict()}
        def load_state_dict(s,d): s.a.load_state_dict(d['a']); s.b.load_state_dict(d['b'])
    opt=Two()
    if rank==0: print('muon',len(big),sum(p.numel() for p in big)/1e6,flush=True)
else: opt=torch.optim.Adam(model.parameters(),lr=LR,fused=True)
ema={k:v.detach().clone() for k,v in model.state_dict().items()}
losses=[];seconds=0.
if os.path.exists(path):
    s=torch.load(path); model.load_state_dict(s['model']); opt.load_state_dict(s['opt']); ema=s['ema']; step=s['step']; losses=s['losses']; seconds=s['seconds']
elif cfg.get('warm'):
    w=torch.load(cfg['warm']) if cfg['warm'].endswith('.pt') else nb.load_model(cfg['warm'],'cpu').state_dict()
    if isinstance(w,dict) and 'ema' in w: w=w['ema']
    sh=cfg.get('shift',0); mine=model.state_dict(); used=[]
    for k,v in w.items():
        p=k.split('.')
        if p[1] in ('down','up') : p[2]=str(int(p[2])+sh)
        if p[1] in ('shrink','grow'): p[2]=str(int(p[2])+sh)
        kk='.'.join(p)
        if sh and p[1] in ('init','out','place'): continue
        if cfg.get('G') and p[1]=='init' and p[2]=='weight':
            idx=[c*4+(I//2)*2+(J//2) for c in range(7) for I in range(4) for J in range(4)]
            v=v.float()[:,idx]/4; v[:,:48]*=1.7; mine[kk]=v; used.append(kk); continue
        if cfg.get('G') and p[1]=='out' and p[2]=='2':
            idx=[c*4+(I//2)*2+(J//2) for c in range(3) for I in range(4) for J in range(4)]
            mine[kk]=v.float()[idx]; used.append(kk); continue
        if kk in mine and mine[kk].shape==v.shape: mine[kk]=v.float(); used.append(kk)
        elif p[1]=='place' and kk in mine: mine[kk]=F.interpolate(v[None].float(),mine[kk].shape[1:],mode='bilinear')[0]; used.append(kk)
    OLD=set(used)
    if rank==0: print('warm',len(used),'of',len(mine),flush=True)
    model.load_state_dict(mine); ema={k:v.detach().clone() for k,v in model.state_dict().items()}
model.to(memory_format=torch.channels_last)
fresh=step
if cfg.get('compile',True):
    import torch._dynamo
    model.net.forward=torch.compile(model.net.forward)
def big_things(numbers,rng):
    pics,caps=[],[]
    for n in numbers:
        told=replace(scenes.captioned(int(n),(1.,0.,0.))[0],sizes=(None,),place=None)
        sc=scenes.complete(told,rng); side=int(scenes.pick(rng,40,48,56,56,64,64))
        x,y=(64-side)*rng.normal(0.5,0.25,2).clip(0,1)
        pics.append(scenes.paint(replace(sc,boxes=((*sc.boxes[0][:2],round(x),round(y),side),)),64))
        caps.append(scenes.caption(told,np.random.default_rng([8,int(n)])))
    return torch.stack(pics),caps
two=cfg.get('kinds')
if two:
    kind=np.array([1 if len(c.things)==2 else 2 if c.count>1 else 0 for c in (scenes.captioned(n)[0] for n in range(30000))])
    W=np.array([k/o for k,o in zip(two,(.5,.3,.2))])[kind]; CUM=np.cumsum(W/W.sum())
    if rank==0: print('kinds',[(kind==k).mean() for k in range(3)],flush=True)
def scene_numbers(rng,n): return np.minimum(np.searchsorted(CUM,rng.random(n)),29999) if two else rng.integers(30000,size=n)
def batch(step):
    rng=np.random.default_rng([11,step,rank]); g=torch.Generator().manual_seed(step*world+rank)
    nt=int(rng.binomial(B,share))
    P,C=[],[]
    if nt: p,c=scenes.thing_batch(rng.integers(20000,size=nt),rng); P.append(p); C+=c
    if nt<B: p,c,_=scenes.scene_batch(scene_numbers(rng,B-nt),rng); P.append(p); C+=c
    x=nb.to_model_range(torch.cat(P)).contiguous(memory_format=torch.channels_last)
    m=torch.stack([(list(nb.MASKS.values())[int(torch.randint(len(nb.MASKS)-1,(1,),generator=g))](1,64,g)[0]) if torch.rand(1,generator=g)<holes else torch.ones(1,64,64) for _ in range(B)])
    return x,C,m,g
params=[p for p in model.parameters()]
begun=time.time(); saved=begun
model.train()
while step<total and (world>1 or time.time()-begun<60*minutes):
    t0=time.time()
    lr=LR*min(1,(step-fresh+1)/(30 if fresh else 200))*min(1,(total-step)/(total*cfg.get('fall',0.1)))
    for gr in opt.param_groups: gr['lr']=lr
    x,C,m,g=batch(step)
    cond=nb.Condition(prompt=C,mask=m,visible=x*(1-m))
    drop=torch.where(m.mean((1,2,3))<1,.25,.1)
    with torch.autocast('cpu',torch.bfloat16,enabled=cfg.get('bf16',False)): loss=model.loss(x,cond,drop=drop,max_weight=5.0,generator=g)
    opt.zero_grad(); loss.backward()
    if step<cfg.get('freeze',0):
        for n,p in model.named_parameters():
            if n in OLD: p.grad.zero_()
    if world>1:
        flat=torch.cat([p.grad.flatten() for p in params]); dist.all_reduce(flat); flat/=world
        i=0
        for p in params: p.grad.copy_(flat[i:i+p.numel()].view_as(p)); i+=p.numel()
    torch.nn.utils.clip_grad_norm_(params,1.0)
    opt.step()
    d=min(ema_decay,(1+step-fresh)/(10+step-fresh))
    with torch.no_grad():
        for k,v in model.state_dict().items(): ema[k].lerp_(v,1-d) if v.is_floating_point() else ema[k].copy_(v)
    step+=1; losses.append(loss.item()); seconds+=time.time()-t0
    stop=torch.tensor(float(time.time()-begun>60*minutes))
    if rank==0 and (step%100==0): print(step,f'{np.mean(losses[-100:]):.4f}',f'{(step-fresh)*B*world/(time.time()-begun):.1f}/s lr {lr:.1e}',flush=True)
    if world>1 and step%20==0:
        dist.broadcast(stop,0)
    if rank==0 and (time.time()-saved>240 or stop or step==total):
        torch.save({'model':model.state_dict(),'opt':opt.state_dict(),'ema':ema,'step':step,'losses':losses,'seconds':seconds,'info':info,'batch':B*world},path+'.tmp'); os.replace(path+'.tmp',path); saved=time.time()
    if world>1 and step%20==0 and stop and rank: break
    if world>1 and not rank and stop and step%20==0: break
if rank==0: torch.save({'model':model.state_dict(),'opt':opt.state_dict(),'ema':ema,'step':step,'losses':losses,'seconds':seconds,'info':info,'batch':B*world},path)
print('done',step)
