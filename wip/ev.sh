cd /opt/w/swap; . /opt/w/venv/bin/activate; export OMP_NUM_THREADS=1 TQDM_DISABLE=1
N=${1:-250}
( python report/evaluate/skills.py --part skills --samples $N --out /tmp/rA.json > /tmp/evA.log 2>&1; python report/evaluate/skills.py --part words variety judge --out /tmp/rA.json >> /tmp/evA.log 2>&1; echo doneA >> /tmp/evA.log ) &
( python report/evaluate/fills.py --results /tmp/rB.json > /tmp/evB.log 2>&1; python report/evaluate/editing.py --results /tmp/rB.json >> /tmp/evB.log 2>&1; echo doneB >> /tmp/evB.log ) &
wait
