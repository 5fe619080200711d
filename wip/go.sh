cd /opt/w; . venv/bin/activate; export OMP_NUM_THREADS=1
for r in 0 1; do nohup nice -n 19 python tr.py painter $r 2 600 "$(cat cfgP.json)" > p$r.log 2>&1 & done
