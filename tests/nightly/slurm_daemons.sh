#!/usr/bin/env bash
# A Slurm of one node, this machine, for tests: everything of it lies in one folder, nothing outlives it.
#   slurm_daemons.sh start FOLDER   prints SLURM_CONF=... once the node is idle; says why and fails otherwise
#   slurm_daemons.sh stop FOLDER
set -euo pipefail
command=$1 folder=$(realpath "$2")
conf=$folder/slurm.conf socket=$folder/munge.socket

start() {
  for program in munged slurmctld slurmd sbatch squeue scancel; do
    command -v "$program" >/dev/null || { echo "there is no $program (Debian: slurmctld, slurmd, munge)"; exit 1; }
  done
  [ "$(id -u)" = 0 ] || { echo "slurmd has to be started by root"; exit 1; }
  dd if=/dev/urandom of="$folder/munge.key" bs=1024 count=1 2>/dev/null
  chmod 700 "$folder"; chmod 600 "$folder/munge.key"
  munged --force --key-file="$folder/munge.key" --socket="$socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/munged.seed" --num-threads=2
  # a port of its own for each daemon, so that several runs and a real Slurm do not meet
  read -r port1 port2 < <(python3 -c 'import socket
found = [socket.socket() for _ in range(2)]
[s.bind(("127.0.0.1", 0)) for s in found]
print(*(s.getsockname()[1] for s in found))')
  mkdir "$folder/state" "$folder/spool"
  cat >"$conf" <<END
ClusterName=recam
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmctldPort=$port1
SlurmdPort=$port2
AuthType=auth/munge
AuthInfo=socket=$socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
KillWait=1
SchedulerParameters=sched_min_interval=100000,batch_sched_delay=0,defer_batch
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
SlurmdParameters=config_overrides
NodeName=localhost NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=short Nodes=localhost Default=YES MaxTime=60 State=UP
END
  export SLURM_CONF=$conf
  slurmctld
  slurmd -N localhost
  for _ in $(seq 150); do
    [ "$(sinfo --noheader --format=%T 2>/dev/null)" = idle ] && { echo "SLURM_CONF=$conf"; return; }
    sleep 0.2
  done
  echo "the node did not become idle: $(tail -n 3 "$folder"/slurmctld.log "$folder"/slurmd.log | tr '\n' ' ')"
  return 1
}

stop() {
  export SLURM_CONF=$conf
  [ ! -f "$folder/slurmctld.pid" ] || scancel --user="$(id -un)" 2>/dev/null || true
  for daemon in slurmd slurmctld munged; do  # each by its own number
    [ -f "$folder/$daemon.pid" ] || continue
    pid=$(cat "$folder/$daemon.pid")
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$pid" 2>/dev/null || true
  done
}

"$command"
