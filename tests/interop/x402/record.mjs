// A proxy that keeps what went through it, to see what a client really sends.
//
// As a program: `node record.mjs TARGET_URL` prints `{"url"}`, and when standard input closes all exchanges as one JSON
// array, in order: `{request:{method,path,headers,body,…},response:{status,headers,body,…}}`. A payment field is there
// twice, as sent and decoded (`decoded: {"PAYMENT-SIGNATURE": {…}}`). As a module: `record(targetUrl)`.

import http from 'node:http';
import { pathToFileURL } from 'node:url';
import { untilEnded } from './chain.mjs';

const FIELDS = ['PAYMENT-REQUIRED', 'PAYMENT-SIGNATURE', 'PAYMENT-RESPONSE', 'X-PAYMENT', 'X-PAYMENT-RESPONSE'];

async function textOf(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function message(start, headers, bytes) {
  const shown = { ...start, headers };
  const text = bytes.toString();
  try {
    shown.body = JSON.parse(text);
  } catch {
    shown.body = text;
  }
  const decoded = FIELDS.filter((name) => headers[name.toLowerCase()] !== undefined).map((name) => {
    const value = headers[name.toLowerCase()];
    try {
      return [name, JSON.parse(Buffer.from(value, 'base64').toString())];
    } catch {
      return [name, null];
    }
  });
  if (decoded.length > 0) shown.decoded = Object.fromEntries(decoded);
  return shown;
}

export async function record(target) {
  const { hostname, port } = new URL(target);
  const exchanges = [];
  const server = http.createServer(async (incoming, outgoing) => {
    const { method, url: path, headers } = incoming;
    const body = await textOf(incoming);
    // A hop must not forward these; the body has been read as a whole.
    const { connection, 'transfer-encoding': _, ...passed } = headers;
    // Passed on as it comes, for event streams; kept when it ends, or breaks off.
    const onward = http.request({ hostname, port, method, path, headers: passed }, (answer) => {
      const { connection: __, 'transfer-encoding': ___, ...back } = answer.headers;
      const chunks = [];
      outgoing.writeHead(answer.statusCode, back).flushHeaders();
      answer.on('data', (chunk) => chunks.push(chunk) && outgoing.write(chunk));
      answer.on('error', () => {});
      answer.on('close', () => {
        exchanges.push({
          request: message({ method, path }, headers, body),
          response: message({ status: answer.statusCode }, answer.headers, Buffer.concat(chunks)),
        });
        outgoing.end();
      });
      outgoing.on('close', () => onward.destroy());
    });
    onward.on('error', () => (outgoing.headersSent ? outgoing.end() : outgoing.writeHead(502).end()));
    onward.end(body);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const stop = () => {
    server.close();
    server.closeAllConnections();
  };
  return { url: `http://127.0.0.1:${server.address().port}`, exchanges, stop };
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { url, exchanges, stop } = await record(process.argv[2]);
  untilEnded(() => {
    console.log(JSON.stringify(exchanges, null, 2));
    stop();
  });
  console.log(JSON.stringify({ url }));
}
