import sys,torch,numpy as np
sys.path[:0]=['/opt/w/swap']; torch.set_num_threads(1)
from helpers import load_notebook
nb=load_notebook()
from models import scenes
import torch.nn.functional as F
from torchvision.utils import save_image
s=torch.load(sys.argv[1],map_location='cpu'); m=nb.build_model(s['info']); m.load_state_dict(s['ema']); m.eval()
rng=np.random.default_rng(5)
a,ca=scenes.thing_batch(range(40000,40012),rng)
x=nb.to_model_range(a); rows=[x]
with torch.no_grad():
    for t in (250,450,600,750):
        z=torch.randn(x.shape,generator=torch.Generator().manual_seed(t)); xt=m.schedule.q_sample(x,t,z)
        e=m(xt,t,nb.Condition(prompt=list(ca))); rows+=[xt,e]
        print(t,m.schedule.alpha_bar[t].item(),[round(1000*v,1) for v in (e-x).square().mean((1,2,3)).tolist()])
print(ca)
save_image(F.interpolate(nb.to_image_range(torch.cat(rows)),scale_factor=2),'/tmp/look.png',nrow=12)
