// SPDX-License-Identifier: Apache-2.0
//
// Node's "ws" as a client of a console: sends 64 MiB, takes as much back behind the greeting, closes, and prints what
// it saw as one line of JSON. The URL comes in BULK_URL: it has a token, and a command line is there for all to read.

"use strict";

const crypto = require("crypto");
const WebSocket = require("ws");

const TOTAL_BYTES = 64 * 1024 * 1024;
const SIZES = [1, 125, 126, 4096, 65535, 65536, 100000, 1000000];
const GREETING = "RFB 003.008\n";

// The proxies of the tests listen on 127.0.0.1, and "localhost" may be ::1 first, where Node would stay.
const socket = new WebSocket(process.env.BULK_URL, ["binary"], { origin: process.env.BULK_ORIGIN, family: 4 });
const sent = crypto.createHash("sha256");
const received = crypto.createHash("sha256");
let sentBytes = 0;
let receivedBytes = 0;
let greeting = null;
let pongs = 0;

function send(turn) {
    if (sentBytes === TOTAL_BYTES) {
        return;
    }
    const message = crypto.randomBytes(Math.min(SIZES[turn % SIZES.length], TOTAL_BYTES - sentBytes));
    sent.update(message);
    sentBytes += message.length;
    // One message in ten comes in fragments, with a ping between them.
    const inFragments = turn % 10 === 0 && message.length > 1;
    if (inFragments) {
        socket.send(message.subarray(0, message.length >> 1), { binary: true, fin: false });
        socket.ping("between");
    }
    const rest = inFragments ? message.subarray(message.length >> 1) : message;
    socket.send(rest, { binary: true, fin: true }, () => send(turn + 1));
}

socket.on("pong", (data) => {
    pongs += data.toString() === "between";
});
socket.on("message", (data, isBinary) => {
    if (!isBinary) {
        throw new Error("a text message");
    }
    if (greeting === null) {
        greeting = data.toString("latin1");
        if (greeting !== GREETING) {
            throw new Error(`greeted with ${JSON.stringify(greeting)}`);
        }
        send(0);
        return;
    }
    received.update(data);
    receivedBytes += data.length;
    if (receivedBytes >= TOTAL_BYTES) {
        socket.close(1000, "done");
    }
});
socket.on("close", (code) => {
    const result = { code, pongs, protocol: socket.protocol, sentBytes, receivedBytes };
    console.log(JSON.stringify({ ...result, sent: sent.digest("hex"), received: received.digest("hex") }));
});
socket.on("error", (error) => {
    console.error(error.message);
    process.exitCode = 1;
});
