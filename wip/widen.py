"""painter.safetensors with widths 32 64 128 256 -> painter_wide.pt, 32 64 256 256, of the same function: level 2's channels doubled (Net2Wider), each reader's weights split unevenly between the two."""
import sys,torch; sys.path.insert(0,'/opt/w/train'); torch.set_num_threads(2)
from helpers import load_notebook
nb=load_notebook(); old=nb.load_model('/opt/w/train/models/painter.safetensors','cpu'); W={k:v.float() for k,v in old.state_dict().items()}
info={**old.info,'config':{**old.info['config'],'widths':[32,64,256,256],'size':64}}
new=nb.build_model(info); N=new.state_dict(); g=torch.Generator().manual_seed(0)
dup=lambda v,d: v.repeat_interleave(2,d)
def split(v,d):
    a=torch.rand(v.shape,generator=g); s=list(v.shape); s[d]*=2
    return torch.stack([v*a,v*(1-a)],d+1).reshape(s)
def tile(v,d,parts=1): return torch.cat([torch.cat([p,p],d) for p in v.chunk(parts,d)],d)
def tsplit(v,d): a=torch.rand(v.shape,generator=g); return torch.cat([v*a,v*(1-a)],d)
for k,v in W.items():
    if N[k].shape==v.shape and not any(s in k for s in ('.down.2.','.up.2.')): continue
    p=k.split('.'); attn=next((x for x in p if x in('look','read')),None); bias=p[-1]=='bias'; was=v
    if attn and p[-2] in('q','kv'):
        parts=2 if p[-2]=='kv' else 1
        v=tile(v,0,parts)
        if not bias and not(attn=='read' and p[-2]=='kv'): v=split(v,1)
    elif attn and p[-2]=='out': v=dup(v,0) if bias else dup(tsplit(v,1),0)
    else:
        if v.ndim==1: v=dup(v,0)
        else:
            if N[k].shape[0]==2*v.shape[0]: v=dup(v,0)
            if N[k].shape[1]==2*v.shape[1]: v=split(v,1)
    print(k,tuple(was.shape),tuple(v.shape)); assert v.shape==N[k].shape; W[k]=v
new.load_state_dict(W); new.eval(); old.eval()
from models import scenes
p,c,_=scenes.scene_batch(range(8),__import__('numpy').random.default_rng(0)); x=nb.to_model_range(p)
with torch.no_grad():
    a,b=(m(x+0.7*torch.randn(x.shape,generator=torch.Generator().manual_seed(1)),500,nb.Condition(prompt=c)) for m in (old,new))
print('difference',(a-b).abs().max())
torch.save({'ema':new.state_dict(),'info':info,'step':0},'/opt/w/painter_wide.pt')
