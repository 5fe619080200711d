# figures of the painter in models/, on two cores (75 minutes on an EPYC Zen 4); then merge_results.py (rA, rB, rC), animals apart
cd /work/main; . /opt/w/venv/bin/activate; export OMP_NUM_THREADS=1 TQDM_DISABLE=1; rm -f /tmp/r[ABC].json
( python report/evaluate/skills.py --part skills --samples 200 --out /tmp/rA.json; python report/evaluate/skills.py --part sweeps --samples 100 --out /tmp/rA.json ) > /tmp/evA.log 2>&1 &
( python report/evaluate/fills.py --results /tmp/rC.json; python report/evaluate/editing.py --results /tmp/rB.json; python report/evaluate/skills.py --part words variety judge --samples 200 --out /tmp/rB.json ) > /tmp/evB.log 2>&1 &
wait  # fills needs tests/benchmarks/requirements.txt
