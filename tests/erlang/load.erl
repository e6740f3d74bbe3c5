%% Work for two nodes: a server, callers that never rest, and messages of a size.
-module(load).
-export([serve/0, call/2, call/3, stop/1, done/1, volume/3, sink/0]).

%% A server that answers calls, registered as `load`.
serve() ->
    register(load, spawn(fun answer/0)),
    ok.

answer() ->
    receive
        {'$gen_call', From, Request} -> gen:reply(From, Request), answer();
        {blob, From, Octets} -> From ! {blob, byte_size(Octets)}, answer();
        _ -> answer()
    end.

%% Callers against the server of a node; stop/1 ends them, done/1 says how many calls were answered.
call(Node, Callers) ->
    call(Node, Callers, 0).

%% The same, with so many milliseconds between two calls of each.
call(Node, Callers, Pause) ->
    Done = counters:new(1, [write_concurrency]),
    Stop = atomics:new(1, []),
    [spawn(fun() -> caller(Node, Done, Stop, Pause) end) || _ <- lists:seq(1, Callers)],
    persistent_term:put(load, {Done, Stop}),
    ok.

caller(Node, Done, Stop, Pause) ->
    case atomics:get(Stop, 1) of
        0 ->
            {get, _} = gen_server:call({load, Node}, {get, erlang:unique_integer()}, infinity),
            counters:add(Done, 1, 1),
            Pause > 0 andalso timer:sleep(Pause),
            caller(Node, Done, Stop, Pause);
        _ ->
            ok
    end.

stop(_) ->
    {Done, Stop} = persistent_term:get(load),
    atomics:put(Stop, 1, 1),
    counters:get(Done, 1).

done(_) ->
    {Done, _} = persistent_term:get(load),
    counters:get(Done, 1).

%% So many blobs of so many octets, each acknowledged before the next is sent.
volume(Node, Blobs, Octets) ->
    Blob = binary:copy(<<"0123456789abcdef">>, Octets div 16),
    [begin
         {load, Node} ! {blob, self(), Blob},
         receive {blob, _} -> ok end
     end || _ <- lists:seq(1, Blobs)],
    Blobs * byte_size(Blob).

%% A process that takes whatever comes.
sink() -> receive _ -> sink() end.
