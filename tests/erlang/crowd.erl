%% Many distribution connections at once between two emulators that are no nodes: the handshake by hand, on both sides.
-module(crowd).
-export([listen/0, connect/3, churn/3]).

-define(FLAGS, 16#d07df7fbd).

%% Accepts whoever comes; the port.
listen() ->
    Owner = self(),
    spawn(fun() ->
        {ok, Listener} = gen_tcp:listen(0, [binary, {active, false}, {packet, 2}, {backlog, 1024}, {reuseaddr, true}]),
        {ok, Port} = inet:port(Listener),
        Owner ! {port, Port},
        accept(Listener)
    end),
    receive {port, Port} -> Port end.

accept(Listener) ->
    {ok, Socket} = gen_tcp:accept(Listener),
    {ok, <<$N, _:64, _:32, _/binary>>} = gen_tcp:recv(Socket, 0, 5000),
    Name = <<"crowd@10.77.0.2">>,
    ok = gen_tcp:send(Socket, <<"sok">>),
    ok = gen_tcp:send(Socket, <<$N, ?FLAGS:64, 7:32, 9:32, (byte_size(Name)):16, Name/binary>>),
    {ok, <<$r, _/binary>>} = gen_tcp:recv(Socket, 0, 5000),
    ok = gen_tcp:send(Socket, <<$a, 0:128>>),
    %% It stays open for as long as the other end wants.
    Waiter = spawn(fun() -> receive go -> gen_tcp:recv(Socket, 0), gen_tcp:close(Socket) end end),
    ok = gen_tcp:controlling_process(Socket, Waiter),
    Waiter ! go,
    accept(Listener).

%% So many connections, each under a name of its own; they stay open.
connect(Ip, Port, Count) ->
    Owner = self(),
    spawn(fun() ->
        [one(Ip, Port, Number) || Number <- lists:seq(1, Count)],
        Owner ! connected,
        receive never -> ok end
    end),
    receive connected -> ok end.

%% So many connections a second, each closed a second later.
churn(Ip, Port, PerSecond) ->
    spawn(fun() -> churn(Ip, Port, PerSecond, 1) end),
    ok.

churn(Ip, Port, PerSecond, Number) ->
    %% Names come again, as those of nodes do.
    spawn(fun() ->
        Socket = one(Ip, Port, Number rem 100),
        timer:sleep(1000),
        gen_tcp:close(Socket)
    end),
    timer:sleep(1000 div PerSecond),
    churn(Ip, Port, PerSecond, Number + 1).

one(Ip, Port, Number) ->
    {ok, Socket} = gen_tcp:connect(Ip, Port, [binary, {active, false}, {packet, 2}]),
    Name = list_to_binary(["crowd", integer_to_list(Number), "@10.77.0.1"]),
    ok = gen_tcp:send(Socket, <<$N, ?FLAGS:64, 7:32, (byte_size(Name)):16, Name/binary>>),
    {ok, <<"sok">>} = gen_tcp:recv(Socket, 0, 5000),
    {ok, <<$N, _/binary>>} = gen_tcp:recv(Socket, 0, 5000),
    ok = gen_tcp:send(Socket, <<$r, 1:32, 0:128>>),
    {ok, <<$a, _/binary>>} = gen_tcp:recv(Socket, 0, 5000),
    Socket.
