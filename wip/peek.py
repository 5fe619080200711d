"""python peek.py state.pt [n]: names right of big things & scenes; a grid picture."""
import sys,torch,numpy as np
sys.path[:0]=['/opt/w/swap','/opt/w/swap/report/evaluate']; torch.set_num_threads(int(__import__('os').environ.get('T','1')))
from helpers import load_notebook
nb=load_notebook()
import detector,skills
from models import scenes
from torchvision.utils import save_image
def load(path):
    if path.endswith('.pt'):
        s=torch.load(path,map_location='cpu'); m=nb.build_model(s['info']); m.load_state_dict(s['ema']); m.eval(); m.info={**s['info'],'step':s['step']}
        return m,s['step']*s['batch']
    m=nb.load_model(path); return m,0
m,seen=load(sys.argv[1]); out=sys.argv[2]; n=int(sys.argv[3]) if len(sys.argv)>3 else 96
judge=detector.load_judge('scene_judge')
data=scenes.drawings()
def draw(words,first=0): return torch.cat([nb.text_to_image(words[i:i+32],seed=first+i,model=m,guidance=3.,steps=20) for i in range(0,len(words),32)])
things=[int(i) for i in data.train][:n]
caps=[scenes.noun(data.names[i]) for i in things]
p=draw(caps); seen_=detector.detect(judge,p)
first=np.mean([bool(f) and f[0]['thing']==t for t,(f,_) in zip(things,seen_)]); five=np.mean([bool(f) and t in f[0]['names'] for t,(f,_) in zip(things,seen_)])
print('pictures',seen,'name alone: first',first,'five',five,flush=True)
save_image(p[:64],out+'_names.png',nrow=16)
if len(sys.argv)>4:
    w=['a red apple on a blue background','a cat to the left of a dog','a cat and a dog','three apples','two cars on a green background','a small penguin in the top left corner','a rocket in the Noto style on a purple background','a house below a sun','a tree and a bicycle','a large owl on a yellow background','four strawberries','a smiling face above a heart','a frog in the OpenMoji style','a robot with a pink background','a guitar right of a balloon','an ice cream cone on an orange background']
    q=draw(w*2,0); save_image(q,out+'_scenes.png',nrow=16)
