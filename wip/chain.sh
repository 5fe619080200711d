cd /opt/w; . venv/bin/activate; export OMP_NUM_THREADS=1 TQDM_DISABLE=1
while pgrep -f "tr.py painterY" >/dev/null; do sleep 2; done
python swap/wip/exportY.py > chain.log 2>&1
( python swap/wip/cmp.py swap /tmp/y2.pt swap/models/painter.safetensors; python swap/wip/cmp.py judge /tmp/old.pt /tmp/y2.pt ) >> chain.log 2>&1 &
T=1 python peek.py swap/models/painter.safetensors /tmp/pk3 100 s >> chain.log 2>&1 &
wait
bash swap/wip/ev.sh 200 >> chain.log 2>&1
echo ALLDONE >> chain.log
