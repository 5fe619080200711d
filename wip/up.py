import sys,torch
sys.path.insert(0,'/opt/w/swap'); torch.set_num_threads(1)
from helpers import load_notebook
nb=load_notebook()
m=nb.train(nb.UPSCALER,'/opt/w/up',save_every=60)
print('done',m.info['step'])
