cd /opt/w; . venv/bin/activate; export OMP_NUM_THREADS=1 TQDM_DISABLE=1
while pgrep -f "tr.py painterM" >/dev/null; do sleep 1; done
python swap/wip/exportM.py /tmp/m.safetensors > chain2.log 2>&1
( python swap/wip/cmp.py swap /tmp/m.pt /tmp/m.safetensors; python swap/wip/cmp.py judge /tmp/old.pt /tmp/y2.pt /tmp/m.pt ) >> chain2.log 2>&1 &
( python peek.py /tmp/m.safetensors /tmp/pk4 100 s; python val.py /tmp/m.safetensors ) >> chain2.log 2>&1 &
wait
echo ALLDONE >> chain2.log
