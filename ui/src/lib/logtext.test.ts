import { expect, it } from 'vitest';
import { readable } from './logtext';

it.each([
  ['2026-11-25 10:33:09,164 INFO: no action. I am (n2), a secondary', 'no action. I am (n2), a secondary'],
  ['{"asctime": "2026-11-25 10:33:09,161", "levelname": "INFO", "message": "no action. I am (n3)"}', 'no action. I am (n3)'],
  ['{"level":"warn","ts":"2026-11-25T10:31:02.15Z","caller":"etcdserver/raft.go:428","msg":"leader is overloaded","to":"f74e","took":{"a":1}}', 'leader is overloaded  to=f74e  took={"a":1}'],
  ['2026-11-25 10:33:09.190 UTC [5287] LOG stats: 9 xacts/s', '[5287] LOG stats: 9 xacts/s'],
  ['2026-11-25T10:28:23.745324+00:00 Server replicas/n3 is UP', 'Server replicas/n3 is UP'],
  ['LOG:  connection authorized: user=daraji', 'LOG:  connection authorized: user=daraji'],
  ['{"asctime": "2026-11-25 12:59:46,818", "message": "Request failed (\\"x\\": y…', 'Request failed ("x": y…'],
  // Nothing that can be told better is left as it is.
  ['{"broken": ', '{"broken": '], ['{"a":1}', '{"a":1}'], ['{"msg":""}', '{"msg":""}'], ['2026-11-25 10:33:09 INFO: ', '2026-11-25 10:33:09 INFO: '], ['', ''],
])('%s', (line, text) => {
  expect(readable(line)).toBe(text);
});
