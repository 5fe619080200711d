import sys,time,json,torch,numpy as np
deep=json.loads(sys.argv[1]) if len(sys.argv)>1 else None
cl=len(sys.argv)>2
cfg=json.loads(open('/opt/w/cfgP0.json').read()); cfg['compile']=False; cfg['muon']=True
if deep: cfg['deep']=deep
sys.argv=['trP.py','bench','0','1','0',json.dumps(cfg)]
exec(open('/opt/w/trP.py').read().split("params=[p for p in")[0])
t=time.time(); x,C,m,g=batch(1); print('batch',time.time()-t)
def step():
    cond=nb.Condition(prompt=C,mask=m,visible=x*(1-m)); drop=torch.where(m.mean((1,2,3))<1,.25,.1)
    t=time.time(); loss=model.loss(x,cond,drop=drop,max_weight=5.0,generator=g); a=time.time()-t
    opt.zero_grad(); loss.backward(); b=time.time()-t; opt.step(); return a,b,time.time()-t
for i in range(3): print(step())
from torch.profiler import profile,ProfilerActivity
with profile(activities=[ProfilerActivity.CPU],with_flops=True,record_shapes=True) as p: step()
print(p.key_averages().table(sort_by="self_cpu_time_total",row_limit=28,max_name_column_width=40))
print(p.key_averages(group_by_input_shape=True).table(sort_by="self_cpu_time_total",row_limit=40,max_name_column_width=40,max_shapes_column_width=70))
print(sum(e.flops for e in p.key_averages())/1e9)
