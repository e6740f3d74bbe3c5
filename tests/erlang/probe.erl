%% A client that speaks the handshake itself: as many connections as wanted, each under a name of its own.
-module(probe).
-export([handshake/4, handshakes/5]).

%% What OTP 25 offers, less the flag of a published node: a hidden node.
-define(FLAGS, (16#d07df7fbd - 1)).

%% Connections one after the other; when the last octet of each was sent, and what came of it.
handshakes(Ip, Port, Cookie, Names, Pause) ->
    [begin Result = handshake(Ip, Port, Cookie, Name), timer:sleep(Pause), Result end || Name <- Names].

handshake(Ip, Port, Cookie, Name) ->
    {ok, Socket} = gen_tcp:connect(Ip, Port, [binary, {active, false}, {packet, 2}, {nodelay, true}]),
    Octets = list_to_binary(Name),
    ok = gen_tcp:send(Socket, <<$N, ?FLAGS:64, 7:32, (byte_size(Octets)):16, Octets/binary>>),
    {ok, <<"sok">>} = gen_tcp:recv(Socket, 0, 5000),
    {ok, <<$N, _Flags:64, Challenge:32, _/binary>>} = gen_tcp:recv(Socket, 0, 5000),
    Digest = erlang:md5([Cookie, integer_to_list(Challenge)]),
    Sent = os:system_time(nanosecond),
    ok = gen_tcp:send(Socket, <<$r, 1:32, Digest/binary>>),
    Outcome = case gen_tcp:recv(Socket, 0, 5000) of
        {ok, <<$a, _:16/binary>>} -> ok;
        {error, Reason} -> Reason
    end,
    Answered = os:system_time(nanosecond),
    %% The node would drop a connection of the same name otherwise.
    timer:sleep(5),
    gen_tcp:close(Socket),
    {Name, Outcome, Sent, Answered}.
