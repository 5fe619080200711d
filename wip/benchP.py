import sys,time,json
sys.argv=['trP.py','bench','0','1','0',json.dumps({"net":{"size":64,"fold":2,"widths":json.loads(sys.argv[1]),"attention":[2,3]},"total":10,"muon":True,"deep":json.loads(sys.argv[2]),"batch":64})]
src=open('/opt/w/trP.py').read().split("begun=time.time(); saved")[0]
exec(src)
print(sum(p.numel() for p in model.parameters())/1e6,'M')
t=time.time(); x,C,m,g=batch(0); t=time.time(); x,C,m,g=batch(1); tb=time.time()-t
T=[]
for i in range(5):
    t=time.time()
    cond=nb.Condition(prompt=C,mask=m,visible=x*(1-m)); drop=torch.where(m.mean((1,2,3))<1,.25,.1)
    with torch.autocast('cpu',torch.bfloat16): loss=model.loss(x,cond,drop=drop,max_weight=5.0,generator=g)
    t1=time.time(); opt.zero_grad(); loss.backward(); t2=time.time(); opt.step(); t3=time.time(); T.append((t1-t,t2-t1,t3-t2))
T=np.median(T[1:],0); print(cfg['net']['widths'],cfg['deep'],'batch',round(tb,2),'fwd,bwd,opt',T.round(2),'per s',round(B/(T.sum()+tb),1),flush=True)
