import json,copy
class NB:
    def __init__(s,path): s.path=path; s.nb=json.load(open(path,encoding='utf-8')); s.cells=s.nb['cells']
    def cell(s,i):
        for c in s.cells:
            if c['id']==i: return c
        raise KeyError(i)
    def src(s,i): return ''.join(s.cell(i)['source'])
    def put(s,i,text): text=text.rstrip("\n"); s.cell(i)['source']=text.splitlines(keepends=True)
    def sub(s,i,old,new,n=1):
        old,new=(old.rstrip("\n"),new.rstrip("\n")) if old.endswith("\n") else (old,new)
        t=s.src(i); assert t.count(old)>=1,(i,old); assert n is None or t.count(old)==n,(i,old,t.count(old)); s.put(i,t.replace(old,new))
    def drop(s,i): s.cells.remove(s.cell(i))
    def insert(s,after,i,kind,text,tags=()):
        k=s.cells.index(s.cell(after))
        c={'cell_type':kind,'id':i,'metadata':{'tags':list(tags)} if tags else {},'source':text.splitlines(keepends=True)}
        if kind=='code': c.update(execution_count=None,outputs=[])
        s.cells.insert(k+1,c)
    def find(s,text): return [c['id'] for c in s.cells if text in ''.join(c['source'])]
    def save(s): open(s.path,'w',encoding='utf-8').write(json.dumps(s.nb,indent=1,ensure_ascii=False)+'\n')
