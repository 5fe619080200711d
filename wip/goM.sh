cd /opt/w; . venv/bin/activate; export OMP_NUM_THREADS=1
for r in 0 1; do setsid nohup nice -n 19 python tr.py painterM $r 2 ${1:-600} "$(cat cfgM.json)" > m$r.log 2>&1 & done
