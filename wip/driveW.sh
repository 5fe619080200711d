cd /opt/w; . venv/bin/activate; export OMP_NUM_THREADS=1 TQDM_DISABLE=1
end=$(date -d "${1:-13:22}" +%s); m=$(( (end-$(date +%s))/60 ))
for r in 0 1; do nice -n 19 python trP.py painterW $r 2 $m "$(cat cfgW.json)" > W$r.log 2>&1 & done; wait
