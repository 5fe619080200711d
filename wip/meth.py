import sys,torch,numpy as np
sys.path[:0]=['/opt/w','/opt/w/swap','/opt/w/swap/report/evaluate']; torch.set_num_threads(1)
sys.argv=['x',sys.argv[1],'/tmp/x','1']
exec(open('/opt/w/peek.py').read().split("m,seen=load")[0])
m,seen=load(sys.argv[1]); judge=detector.load_judge('scene_judge'); data=scenes.drawings()
things=[int(i) for i in data.train]; caps=[scenes.noun(data.names[i]) for i in things]
out=[]
for meth,g,st in (('2m',3,20),('ddpm',3,20),('ddpm',2,20),('ddpm',5,20),('ddpm',3,40)):
    p=torch.cat([nb.text_to_image(caps[i:i+50],seed=i,model=m,guidance=float(g),steps=st,method=meth) for i in (0,50)])
    s=detector.detect(judge,p)
    print(meth,g,st,'first',np.mean([bool(f) and f[0]['thing']==t for t,(f,_) in zip(things,s)]),'five',np.mean([bool(f) and t in f[0]['names'] for t,(f,_) in zip(things,s)]),flush=True)
    out.append(p[:16])
save_image(torch.cat(out),'/tmp/meth.png',nrow=16)
