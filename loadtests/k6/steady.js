// Sends a plan of `python -m loadtests k6` open-loop: every request at its own moment, by a virtual user that is free.
//
// PLAN: the plan's JSON. TARGET: host:port. TENANT: whose caches it meets. PROTOS: folders of .proto files, by colons.
// SUMMARY: where the figures go. BEGIN: start of the load, in ms since 1970; left out, 2 s after k6 is ready.
import exec from 'k6/execution';
import grpc from 'k6/net/grpc';
import { sleep } from 'k6';
import { SharedArray } from 'k6/data';
import { Counter, Trend } from 'k6/metrics';

const METHOD = 'limner.v1.PortraitService/Generate';
// Every user connects before the first request is due.
const LEAD_MS = 2000;

const requests = new SharedArray('requests', () => JSON.parse(open(__ENV.PLAN)).requests);
const users = Math.min(requests.length, Number(__ENV.USERS || 96));

export const options = {
  scenarios: {
    steady: {
      executor: 'shared-iterations',
      vus: users,
      iterations: requests.length,
      maxDuration: `${Math.ceil(requests[requests.length - 1].at + 120)}s`,
    },
  },
  summaryTrendStats: ['avg', 'med', 'p(90)', 'p(95)', 'p(99)', 'max', 'count'],
};

const latency = new Trend('limner_latency', true);
const late = new Trend('limner_late', true);
const end = new Trend('limner_end', true);
const answered = new Counter('limner_answered');
const failed = new Counter('limner_failed');

const client = new grpc.Client();
client.load(__ENV.PROTOS.split(':'), 'limner/v1/portrait_service.proto');
let connected = false;

export default function () {
  if (!connected) {
    client.connect(__ENV.TARGET, { plaintext: true, timeout: '30s', maxReceiveSize: 67108864 });
    connected = true;
  }
  // Iterations begin in this order, so it is the plan's.
  const request = requests[exec.scenario.iterationInTest];
  const begin = Number(__ENV.BEGIN || exec.scenario.startTime + LEAD_MS);
  const due = begin + 1000 * request.at;
  const wait = due - Date.now();
  if (wait > 0) {
    sleep(wait / 1000);
  }
  late.add(Math.max(0, Date.now() - due));
  const answer = client.invoke(METHOD, request.body, {
    metadata: { 'x-limner-tenant': __ENV.TENANT },
    timeout: '600s',
    discardResponseMessage: true,
  });
  const now = Date.now();
  if (answer.status === grpc.StatusOK) {
    answered.add(1);
    // From when it was due, not from when it was sent: coordinated omission.
    latency.add(now - due);
    end.add(now - begin);
  } else {
    failed.add(1);
    console.error(`request ${exec.scenario.iterationInTest}: ${answer.status} ${answer.error && answer.error.message}`);
  }
}

export function handleSummary(data) {
  return { [__ENV.SUMMARY]: JSON.stringify(data.metrics) };
}
