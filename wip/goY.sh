cd /opt/w; . venv/bin/activate; export OMP_NUM_THREADS=1
for r in 0 1; do setsid nohup nice -n 19 python tr.py painterY $r 2 ${1:-600} "$(cat cfgY.json)" > y$r.log 2>&1 & done
