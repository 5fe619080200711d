import sys,time,torch,numpy as np
sys.path.insert(0,'/opt/w/swap'); torch.set_num_threads(1)
from helpers import load_notebook
from models import scenes
from dataclasses import replace
nb=load_notebook(); which=sys.argv[1]
if which=='scenes': caps=[scenes.captioned(n)[1] for n in range(30000)]
else: caps=[scenes.caption(replace(scenes.captioned(n,(1.,0.,0.))[0],sizes=(None,),place=None),np.random.default_rng([8,n])) for n in range(20000)]
enc=nb.TextEncoder(); tok=enc.tokenizer
uniq=list(dict.fromkeys(caps)); ids=tok(uniq)['input_ids']
by={}
for u,i in zip(uniq,ids): by.setdefault(len(i),[]).append((u,i))
out={}; t0=time.time()
print(len(uniq), 'longest', max(by),flush=True)
with torch.no_grad():
    for L,items in sorted(by.items()):
        for k in range(0,len(items),64):
            part=items[k:k+64]
            x=torch.tensor([i for _,i in part])
            h=enc.model(input_ids=x,attention_mask=torch.ones_like(x)).last_hidden_state.half()
            for (u,_),r in zip(part,h): out[u]=r.clone()
torch.save(out,f'/opt/w/encoded_{which}.pt'); print(which,time.time()-t0)
