"""python cmp.py main|swap out.pt : paint 'X on a Y background' for names both know; python cmp.py judge"""
import sys,json,torch,numpy as np
torch.set_num_threads(1)
which=sys.argv[1]
root='/work/main' if which=='main' else '/opt/w/swap'
sys.path[:0]=[root,root+'/report/evaluate']
sys.path.insert(0,'/opt/w/swap') if which!='main' else None
import importlib
from helpers import load_notebook
nb=load_notebook()
names=json.load(open('/tmp/common.json'))
cols=['red','yellow','green','blue','pink','grey','orange','turquoise','purple','white','brown']
caps=[f"{n} on a{'n' if cols[i%11]=='orange' else ''} {cols[i%11]} background" for i,n in enumerate(names)]
if which in('main','swap'):
    m=nb.shipped('emoji') if which=='main' else (nb.load_model(sys.argv[3]))
    p=torch.cat([nb.text_to_image(caps[i:i+32],seed=i,model=m,guidance=3.0,steps=20,**({'method':sys.argv[4]} if len(sys.argv)>4 else {})) for i in range(0,len(caps),32)])
    torch.save(p,sys.argv[2]); from torchvision.utils import save_image; save_image(p[:64],sys.argv[2][:-3]+'.png',nrow=16)
else:
    import detector
    from models import scenes
    j=detector.load_judge(); d=scenes.drawings()
    for f in sys.argv[2:]:
        s=detector.detect(j,torch.load(f)); key=[n.split(' ',1)[1] for n in names]
        print(f,'first',np.mean([bool(x) and d.names[x[0]['thing']]==k for k,(x,_) in zip(key,s)]),'five',np.mean([bool(x) and d.names.index(k) in x[0]['names'] for k,(x,_) in zip(key,s)]),'colour',np.mean([c==list(scenes.COLOURS).index(cols[i%11]) for i,(x,c) in enumerate(s)]))
