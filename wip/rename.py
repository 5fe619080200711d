"""Rename tensors in safetensors files to today's names of the U-Net's parts, bits unchanged: python rename.py FILE..."""
import sys,re,json; sys.path.insert(0,'/work/main')
from safetensors import safe_open
from safetensors.torch import save
from helpers import fingerprint, write_whole
for f in sys.argv[1:]:
    with safe_open(f,'pt') as file: head=file.metadata(); T={k:file.get_tensor(k) for k in file.keys()}
    info=json.loads(head['info']); assert head['sha256']==fingerprint(info,T)
    new={}
    for k,v in T.items():
        k=re.sub(r'\.look\.','.self_attention.',k); k=re.sub(r'\.read\.','.cross_attention.',k)
        k=re.sub(r'^(net\.)?shrink\.',r'\1downsample.',k); k=re.sub(r'^(net\.)?grow\.',r'\1upsample.',k); k=re.sub(r'^(net\.)?place(?=\.|$)',r'\1position',k)
        new[k]=v
    n=sum(a!=b for a,b in zip(T,new)); print(f,n,'renamed of',len(T))
    if n: write_whole(save(new,metadata={"info":head['info'],"sha256":fingerprint(info,new)}),f)
