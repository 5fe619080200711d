cd /opt/w/swap; . /opt/w/venv/bin/activate; export OMP_NUM_THREADS=1 TQDM_DISABLE=1
N=${1:-200}; rm -f /tmp/rA.json /tmp/rB.json; echo '{}' > /tmp/rA.json; echo '{}' > /tmp/rB.json
( python report/evaluate/skills.py --part skills --samples $N --out /tmp/rA.json > /tmp/evA.log 2>&1; python report/evaluate/skills.py --part words variety judge sweeps --samples $N --out /tmp/rA.json >> /tmp/evA.log 2>&1; echo doneA >> /tmp/evA.log ) &
( python report/evaluate/fills.py --results /tmp/rB.json > /tmp/evB.log 2>&1; python report/evaluate/editing.py --pairs 30 --results /tmp/rB.json >> /tmp/evB.log 2>&1; echo doneB >> /tmp/evB.log ) &
wait
