import sys; F=int(sys.argv.pop(1))
src=open('/opt/w/val.py').read()
pre='''
from torch import nn
if F:
    old=nb.Stage.__init__
    def init(self,ci,co,e,l,tw):
        old(self,ci,co,e,l,tw)
        if tw: self.memory=nn.Sequential(nn.GroupNorm(8,co),nn.Conv2d(co,F*co,1),nn.GELU(),nn.Conv2d(F*co,co,1))
    oldf=nb.Stage.forward
    def fwd(self,x,v,t):
        x=oldf(self,x,v,t); return x+self.memory(x) if hasattr(self,'memory') else x
    nb.Stage.__init__=init; nb.Stage.forward=fwd
from models import scenes'''
exec(src.replace('from models import scenes',pre,1))
