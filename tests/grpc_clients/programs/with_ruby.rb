# Carries out calls (see ../conftest.py) with grpc for Ruby.

require "base64"
require "grpc"
require "json"
require "securerandom"

SAME = proc { |bytes| bytes }

def carry_out(stub, call)
  messages = call["messages"].map { |each| Base64.decode64(each) }
  metadata = call["metadata"].to_h { |k, v| [k, k.end_with?("-bin") ? Base64.decode64(v) : v] }
  metadata["traceparent"] = "00-#{SecureRandom.hex(16)}-#{SecureRandom.hex(8)}-01" if call["traceparent"]
  given = { metadata: metadata, return_op: true }
  given[:deadline] = Time.now + call["timeout_s"] if call["timeout_s"]
  answers, trailers, code, details = [], {}, 0, ""
  operation = case call["kind"]
              when "unary" then stub.request_response(call["path"], messages[0], SAME, SAME, **given)
              when "server" then stub.server_streamer(call["path"], messages[0], SAME, SAME, **given)
              else stub.bidi_streamer(call["path"], messages, SAME, SAME, **given)
              end
  Thread.new { sleep call["cancel_s"]; operation.cancel } if call["cancel_s"]
  begin
    if call["kind"] == "unary"
      answers << operation.execute
    else
      operation.execute.each do |answer|
        answers << answer
        operation.cancel if answers.length == call["answers"]
      end
    end
    trailers = operation.trailing_metadata || {}
  rescue GRPC::BadStatus => e
    code, details, trailers = e.code, e.details, e.metadata
  end
  pairs = trailers.flat_map { |k, v| Array(v).map { |each| [k, k.end_with?("-bin") ? Base64.strict_encode64(each) : each] } }
  { code: code, details: details, answers: answers.map { |each| Base64.strict_encode64(each) }, trailers: pairs }
end

job = JSON.parse(File.read(ARGV[0]))
credentials = job["ca"] ? GRPC::Core::ChannelCredentials.new(File.read(job["ca"])) : :this_channel_is_insecure
stub = GRPC::ClientStub.new(job["target"], credentials, channel_args: { "grpc.max_receive_message_length" => -1 })
job["calls"].each do |call|
  outcomes = if call["at_once"]
               Array.new(call["times"]) { Thread.new { carry_out(stub, call) } }.map(&:value)
             else
               Array.new(call["times"]) { carry_out(stub, call) }
             end
  puts JSON.generate({ name: call["name"], outcomes: outcomes })
  $stdout.flush
end
