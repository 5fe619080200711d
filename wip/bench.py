import sys,time,json,torch,numpy as np
sys.argv=['tr.py','bench','0','1','0',json.dumps({"net":json.loads(sys.argv[1]),"total":10,"compile":False})]+sys.argv[2:]
src=open('/opt/w/tr.py').read().split("params=[p for p in")[0]
exec(src)
extra=sys.argv[6:]
t=time.time(); x,C,m,g=batch(0); x,C,m,g=batch(1); print('batch',(time.time()-t)/2,'s for',B)
print(sum(p.numel() for p in model.parameters())/1e6,'M')
raw=model.net.forward
def go(tag,bf,comp):
    model.net.forward=torch.compile(raw) if comp else raw
    times=[]
    for i in range(5):
        t=time.time()
        cond=nb.Condition(prompt=C,mask=m,visible=x*(1-m)); drop=torch.where(m.mean((1,2,3))<1,.25,.1)
        with torch.autocast('cpu',torch.bfloat16,enabled=bool(bf)): loss=model.loss(x,cond,drop=drop,max_weight=5.0,generator=g)
        opt.zero_grad(); loss.backward(); opt.step()
        times.append(time.time()-t)
    print(tag,f'{B/np.median(times[2:]):.1f}/s',f'first {times[0]:.0f}s loss {loss.item():.3f}',flush=True)
for tag,bf,comp in (('eager fp32',0,0),('eager bf16',1,0),('compiled bf16',1,1),('compiled fp32',0,1)):
    if not extra or tag in extra: go(tag,bf,comp)
