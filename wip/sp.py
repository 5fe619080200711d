import sys,torch,numpy as np
sys.path[:0]=['/opt/w/swap','/opt/w/swap/report/evaluate']; torch.set_num_threads(1)
from helpers import load_notebook
nb=load_notebook()
import detector
from models import scenes
from torchvision.utils import save_image
j=detector.load_judge(); d=scenes.drawings(); things=[int(i) for i in d.train][:48]; caps=[scenes.noun(d.names[i]) for i in things]
m=nb.load_model('/opt/w/swap/models/painter.safetensors')
def go(name,ts,g,method):
    den=m.guided(nb.Condition(prompt=caps),g); n=nb.Noise(0,48); x=n((3,64,64))
    with torch.no_grad(): p=nb.finish(nb.generate(den,x,m.schedule,ts,method,noise=n))
    s=detector.detect(j,p); print(name,g,method,'first',np.mean([bool(f) and f[0]['thing']==t for t,(f,_) in zip(things,s)]),'five',np.mean([bool(f) and t in f[0]['names'] for t,(f,_) in zip(things,s)]),flush=True)
    return p[:16]
q=lambda k,n,last: sorted({max(last,round(1000*((n-i)/n)**k)) for i in range(n)},reverse=True)
which=sys.argv[1]
out=[]
if which=='a':
    out.append(go('even20',nb.time_steps(1000,20),3.,'ddpm'))
    out.append(go('quad20',q(2,20,5),3.,'ddpm'))
    out.append(go('quad20',q(2,20,5),3.,'2m'))
else:
    out.append(go('even50',nb.time_steps(1000,50),3.,'ddpm'))
    out.append(go('quad20',q(1.5,20,5),2.,'ddpm'))
save_image(torch.cat(out),f'/tmp/sp_{which}.png',nrow=16)
