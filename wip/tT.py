import sys,torch,numpy as np
sys.path[:0]=['/opt/w/swap']; torch.set_num_threads(1)
from helpers import load_notebook
nb=load_notebook()
from models import scenes
from torchvision.utils import save_image
s=torch.load('/opt/w/painterX.pt',map_location='cpu'); m=nb.build_model(s['info']); m.load_state_dict(s['ema']); m.eval()
d=scenes.drawings()
nums=np.arange(16); caps=None; mean=0; means=[]
K=24
acc=0
for k in range(K):
    p,caps=scenes.thing_batch(nums,np.random.default_rng(100+k)); acc=acc+nb.to_model_range(p); last=nb.to_model_range(p)
true=acc/K
out={}
with torch.no_grad():
    for t in (1000,900,800,700,600):
        z=torch.randn(16,3,64,64,generator=torch.Generator().manual_seed(t))
        x=m.schedule.q_sample(last,t,z) if hasattr(m.schedule,'q_sample') else None
        e=m(x,t,nb.Condition(prompt=list(caps)))
        u=m(x,t,nb.Condition(prompt=['']*16))
        out[t]=e
        print(t,'own',(e-last).square().mean().item(),'none',(u-last).square().mean().item(),'mean',(true-last).square().mean().item(),'e-true',(e-true).square().mean().item(), 'ab',m.schedule.alpha_bar[t].item())
print(caps)
save_image(nb.to_image_range(torch.cat([true,*out.values(),last])),'/tmp/tT.png',nrow=16)
