cd /opt/w; . venv/bin/activate; export OMP_NUM_THREADS=1 TQDM_DISABLE=1
end=$(date -d "09:42" +%s); m=$(( (end-$(date +%s))/60 ))
sed "s#/opt/w/painter_main.pt#/opt/w/painterP1.pt#" cfgL1.json > cfgL.json
for r in 0 1; do nice -n 19 python trP.py painterL $r 2 $m "$(cat cfgL.json)" > L$r.log 2>&1 & done; wait
