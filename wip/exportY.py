"""painterY.pt -> a file with its description: python exportY.py [out]"""
import sys,torch
sys.path.insert(0,'/opt/w/swap'); torch.set_num_threads(1)
from helpers import load_notebook
nb=load_notebook()
w=nb.load_model('/opt/w/old/painter_w4.safetensors','cpu'); X,A,Y=(torch.load(f'/opt/w/{f}.pt',map_location='cpu') for f in ('painterX_5600','pA','painterY'))
m=nb.build_model(nb.PAINTER.info); m.load_state_dict(Y['ema']); m.eval()
a=A['losses'][:A['step']]; half=[(x+y)/2 for x,y in zip(a[::2],a[1::2])]
losses=[*map(float,w.info['losses']),*X['losses'],*half,*Y['losses']]; parts=[w.info['step'],X['step'],len(half),Y['step']]; steps=sum(parts)
assert len(losses)==steps,(len(losses),parts)
m.info={**nb.PAINTER.info,'settings':nb.PAINTER.settings,'step':steps,'seconds':round(w.info['seconds']+X['seconds']+A['seconds']/2+Y['seconds']),'machine':'x86_64, cpu',
 'fresh optimiser at':[sum(parts[:i]) for i in (1,2,3)],
 'history':f'its three inner levels began as those of a network on blocks of 4 x 4 pixels, after 372,000 pictures; until step {sum(parts[:3]):,} things stood at any pixel, in ten sizes',
 'losses':losses,'samples':{}}
out=sys.argv[1] if len(sys.argv)>1 else '/opt/w/swap/models/painter.safetensors'
nb.save_model(m,out,torch.int8)
print(parts,nb.describe(nb.load_model(out)))
