"""painterW.pt (trP.py, names of the tree before 28 November afternoon) -> a file that today's notebook loads, once PAINTER has widths 32, 64, 256, 256: python exportW.py painterW.pt OUT"""
import sys,re,torch; sys.path.insert(0,'/work/main'); torch.set_num_threads(1)
from helpers import load_notebook
nb=load_notebook(); old=nb.load_model('/work/main/models/painter.safetensors','cpu'); s=torch.load(sys.argv[1],map_location='cpu')
def new(k):
    for a,b in ((r'\.look\.','.self_attention.'),(r'\.read\.','.cross_attention.'),(r'net\.shrink\.','net.downsample.'),(r'net\.grow\.','net.upsample.'),(r'net\.place$','net.position')): k=re.sub(a,b,k)
    return k
info={**old.info,'config':{**old.info['config'],'widths':[32,64,256,256]}}
m=nb.build_model(info); m.load_state_dict({new(k):v for k,v in s['ema'].items()}); m.eval()
steps=s['step']*s['batch']//64  # in steps of 64, as those before
before=old.info['step']
losses=[*map(float,old.info['losses']),*[l for l in s['losses'] for _ in range(s['batch']//64)]][:before+steps]
m.info={**info,'step':before+steps,'seconds':round(old.info.get('seconds',0)+s['seconds']),'fresh optimiser at':[*old.info.get('fresh optimiser at',[]),before],
 'history':old.info['history']+f"; from step {before:,} on with 256 channels at 8 x 8 in the place of 128 (each doubled: the same function at first), in batches of 128, and two of a kind at 32 pixels",'losses':losses,'settings':{**old.info['settings'],'epochs':72}}
print(before,steps,len(losses),m.info['settings'])
nb.save_model(m,sys.argv[2],torch.int8); print(nb.describe(nb.load_model(sys.argv[2])))
