%% The load of a benchmark recording: processes that call, cast, rpc and now and then send something big, at full speed.
-module(bench_load).
-behaviour(gen_server).
-export([serve/0, run/2, handle_call/3, handle_cast/2, init/1, add/2]).

serve() ->
    {ok, _} = gen_server:start({local, till}, ?MODULE, [], []),
    io:format("ready~n"),
    receive never -> ok end.

%% Runs until the connection or the node ends.
run(Node, Processes) ->
    pong = net_adm:ping(Node),
    [spawn_link(fun() -> rand:seed(exsss, {N, 7, 1}), loop(Node) end) || N <- lists:seq(1, Processes)],
    receive never -> ok end.

loop(Node) -> act(Node, rand:uniform(1000)), loop(Node).

act(Node, N) when N =< 580 -> {ok, N} = gen_server:call({till, Node}, {price, N}, infinity);
act(Node, N) when N =< 740 ->
    Items = [{item, I, <<"cup">>, I * 1.25, #{colour => green}} || I <- lists:seq(1, N rem 20)],
    gen_server:call({till, Node}, {basket, N, Items}, infinity);
act(Node, N) when N =< 880 -> [gen_server:cast({till, Node}, {bell, I, self()}) || I <- lists:seq(1, 10)];
act(Node, N) when N =< 960 -> true = (N + 1 =:= rpc:call(Node, ?MODULE, add, [N, 1]));
act(Node, N) when N =< 998 -> gen_server:call({till, Node}, {picture, rand:bytes(1000 + rand:uniform(15000))}, infinity);
act(Node, _) -> gen_server:call({till, Node}, {film, rand:bytes(1000000)}, infinity).

add(A, B) -> A + B.

init([]) -> {ok, 0}.
handle_call({price, N}, _, S) -> {reply, {ok, N}, S};
handle_call({basket, N, Items}, _, S) -> {reply, {sold, N, length(Items)}, S};
handle_call({_, Bytes}, _, S) -> {reply, byte_size(Bytes), S}.
handle_cast(_, S) -> {noreply, S + 1}.
