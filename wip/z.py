import sys,torch,numpy as np,torch.nn.functional as F
sys.path[:0]=['/opt/w/swap','/opt/w/swap/report/evaluate']; torch.set_num_threads(1)
from helpers import load_notebook
nb=load_notebook()
import detector
from models import scenes
from torchvision.utils import save_image
j=detector.load_judge(); d=scenes.drawings(); things=[int(i) for i in d.train][:60]; caps=[scenes.noun(d.names[i]) for i in things]
def rate(p):
    s=detector.detect(j,p); return np.mean([bool(f) and f[0]['thing']==t for t,(f,_) in zip(things,s)]),np.mean([bool(f) and t in f[0]['names'] for t,(f,_) in zip(things,s)])
m=nb.load_model('/opt/w/swap/models/painter_things.safetensors')
S64=nb.Schedule('cosine',1000,4.0); S32=m.schedule
den32=m.guided(nb.Condition(prompt=caps),3.0)
# a) native 32 px, upsampled for the judge
p=nb.finish(nb.walk(m,den32,60,steps=20,seed=0,method='ddpm'))
up=F.interpolate(p,scale_factor=2,mode='bicubic').clamp(0,1); print('32 native, bicubic',rate(up),flush=True)
save_image(up,'/tmp/z_a.png',nrow=15)
class M: pass
def wrap(scale):
    def f(x,t):
        k=(S32.signal[t]/S64.signal[t]).item() if scale=='exact' else scale
        return F.interpolate(den32(F.avg_pool2d(x,2)*k,t),scale_factor=2)
    return f
for sc in ('exact',1.7,1.0):
    x=nb.Noise(0,60)((3,64,64))
    with torch.no_grad(): p=nb.finish(nb.generate(wrap(sc),x,S64,nb.time_steps(1000,20),'ddpm',noise=nb.Noise(5,60)))
    print('64 wrapped',sc,rate(p),flush=True); save_image(p,f'/tmp/z_{sc}.png',nrow=15)
