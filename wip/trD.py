"""The one-step denoiser of the course (D = 128), on from the shipped weights: python trD.py MINUTES. State in /opt/w/denoiser/training."""
import sys,torch; sys.path.insert(0,'/work/main'); torch.set_num_threads(int(sys.argv[2]) if len(sys.argv)>2 else 2)
from helpers import load_notebook
nb=load_notebook()
m=nb.train(nb.DENOISER,'/opt/w/denoiser',warm=True,save_every=120,max_seconds=60*float(sys.argv[1]))
print(m.info['step'],m.info['losses'][-20:])
