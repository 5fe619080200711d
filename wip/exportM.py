"""painterM.pt -> a file with its description, after what models/painter.safetensors of commit 'Painter after 871,000 pictures' holds: python exportM.py [out]"""
import sys,torch
sys.path.insert(0,'/opt/w/swap'); torch.set_num_threads(1)
from helpers import load_notebook
nb=load_notebook()
w=nb.load_model(sys.argv[2] if len(sys.argv)>2 else '/opt/w/painterY_final.safetensors','cpu'); M=torch.load('/opt/w/painterM.pt',map_location='cpu')
m=nb.build_model(nb.PAINTER.info); m.load_state_dict(M['ema']); m.eval()
losses=[*map(float,w.info['losses']),*M['losses']]; steps=w.info['step']+M['step']; assert len(losses)==steps
m.info={**w.info,'settings':nb.PAINTER.settings,'step':steps,'seconds':round(w.info['seconds']+M['seconds']),'fresh optimiser at':[*w.info['fresh optimiser at'],w.info['step']],
 'history':w.info['history']+f"; from step {w.info['step']:,} on Muon in the place of Adam, and from step 17,229 on two things as large as fits, in half of the scenes from step 20,377 on",'losses':losses}
out=sys.argv[1] if len(sys.argv)>1 else '/opt/w/swap/models/painter.safetensors'
nb.save_model(m,out,torch.int8)
print(nb.describe(nb.load_model(out)))
