src=open('/opt/w/bench.py').read().split('for tag,bf')[0]
exec(src)
from torch.profiler import profile, ProfilerActivity
from torch.utils.flop_counter import FlopCounterMode
def one():
    cond=nb.Condition(prompt=C,mask=m,visible=x*(1-m)); drop=torch.where(m.mean((1,2,3))<1,.25,.1)
    with torch.autocast('cpu',torch.bfloat16): loss=model.loss(x,cond,drop=drop,max_weight=5.0,generator=g)
    opt.zero_grad(); loss.backward(); opt.step()
for _ in range(3): one()
fc=FlopCounterMode(display=False)
with fc: one()
print('GFLOP/picture',fc.get_total_flops()/B/1e9)
t=time.time(); one(); print('s',time.time()-t)
with profile(activities=[ProfilerActivity.CPU],record_shapes=True) as p: one()
print(p.key_averages().table(sort_by='self_cpu_time_total',row_limit=25,max_name_column_width=45))
