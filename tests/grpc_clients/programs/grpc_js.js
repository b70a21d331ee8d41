// Carries out calls (see ../conftest.py) with @grpc/grpc-js.

const crypto = require("crypto");
const fs = require("fs");
const grpc = require("@grpc/grpc-js");

const same = (bytes) => bytes;

function carryOut(client, call) {
  const messages = call.messages.map((each) => Buffer.from(each, "base64"));
  const metadata = new grpc.Metadata();
  for (const [key, value] of call.metadata)
    metadata.add(key, key.endsWith("-bin") ? Buffer.from(value, "base64") : value);
  if (call.traceparent)
    metadata.add("traceparent", `00-${crypto.randomBytes(16).toString("hex")}-${crypto.randomBytes(8).toString("hex")}-01`);
  const options = call.timeout_s === null ? {} : { deadline: Date.now() + call.timeout_s * 1000 };
  return new Promise((resolve) => {
    const answers = [];
    let asked;
    if (call.kind === "unary")
      asked = client.makeUnaryRequest(call.path, same, same, messages[0], metadata, options, (error, answer) => {
        if (!error) answers.push(answer);
      });
    else if (call.kind === "server")
      asked = client.makeServerStreamRequest(call.path, same, same, messages[0], metadata, options);
    else {
      asked = client.makeBidiStreamRequest(call.path, same, same, metadata, options);
      for (const message of messages) asked.write(message);
      asked.end();
    }
    if (call.kind !== "unary") {
      asked.on("data", (answer) => {
        answers.push(answer);
        if (answers.length === call.answers) asked.cancel();
      });
      asked.on("error", () => {});
    }
    asked.on("status", (status) => {
      const trailers = [];
      for (const key of Object.keys(status.metadata.getMap()))
        for (const value of status.metadata.get(key))
          trailers.push([key, Buffer.isBuffer(value) ? value.toString("base64") : value]);
      // A unary call's answer is handed over after its status.
      setImmediate(() =>
        resolve({
          code: status.code,
          details: status.details === "OK" && status.code === 0 ? "" : status.details,
          answers: answers.map((each) => each.toString("base64")),
          trailers,
        }),
      );
    });
    if (call.cancel_s) setTimeout(() => asked.cancel(), call.cancel_s * 1000);
  });
}

async function main() {
  const job = JSON.parse(fs.readFileSync(process.argv[2]));
  const credentials = job.ca ? grpc.credentials.createSsl(fs.readFileSync(job.ca)) : grpc.credentials.createInsecure();
  const client = new grpc.Client(job.target, credentials, { "grpc.max_receive_message_length": -1 });
  for (const call of job.calls) {
    let outcomes = [];
    if (call.at_once) outcomes = await Promise.all(Array.from({ length: call.times }, () => carryOut(client, call)));
    else for (let n = 0; n < call.times; n++) outcomes.push(await carryOut(client, call));
    console.log(JSON.stringify({ name: call.name, outcomes }));
  }
  client.close();
}

main();
