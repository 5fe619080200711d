import json
p='/opt/w/swap/report/results.json'; r=json.load(open(p))
for f in('/tmp/rA.json','/tmp/rB.json','/tmp/rC.json'):
    for k,v in json.load(open(f)).items(): r.setdefault(k,{}).update(v)
json.dump(r,open(p,'w'),indent=1); open(p,'a').write('\n')
